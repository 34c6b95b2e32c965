"""How an instance is seen: tables, sparse matrices and texts, each as a row of features.

`encoder_for` picks one for the data at hand: columns are standardised, texts become hashed TF-IDF with an SVD, mixed
tables are read column by column. Better features for text: `Pretrained("folder or name")`, with `anygrain[text]`.
"""

from anygrain.encoders.choose import encoder_for, encoder_from
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.frame import Frame
from anygrain.encoders.pretrained import Pretrained
from anygrain.encoders.sparse import Sparse
from anygrain.encoders.table import Table
from anygrain.encoders.text import Text

__all__ = ["Encoder", "Frame", "Pretrained", "Sparse", "Table", "Text", "encoder_for", "encoder_from"]
