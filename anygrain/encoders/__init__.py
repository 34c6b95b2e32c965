"""How an instance is seen: tables, sparse matrices and texts, each as a row of features.

`encoder_for` picks one for the data at hand: columns are standardised, texts become hashed TF-IDF with an SVD, mixed
tables are read column by column. Better features for text: `Pretrained("folder or name")`, with `anygrain[text]`.
Images go through a network that is trained with the head: `Convolutional`, or the deeper and slower `Residual`; so do,
where asked, texts through `Transformer` or `HuggingFace("folder")` and data frames through `Columns`. Bags of instances
are rows of a `BagEncoder`; `anygrain.encoders.bags` has its aggregators.
"""

from anygrain.encoders.augment_images import ImageAugmentation
from anygrain.encoders.bags import BagEncoder
from anygrain.encoders.choose import encoder_for, encoder_from
from anygrain.encoders.columns import Columns
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.frame import Frame
from anygrain.encoders.hugging_face import HuggingFace
from anygrain.encoders.image import Convolutional, Residual
from anygrain.encoders.pretrained import Pretrained
from anygrain.encoders.sparse import Sparse
from anygrain.encoders.summary import Summary
from anygrain.encoders.table import Table
from anygrain.encoders.text import Text
from anygrain.encoders.timm_model import Timm
from anygrain.encoders.transformer import Transformer

__all__ = [
    "BagEncoder",
    "Columns",
    "Convolutional",
    "Encoder",
    "Frame",
    "HuggingFace",
    "ImageAugmentation",
    "Pretrained",
    "Residual",
    "Sparse",
    "Summary",
    "Table",
    "Text",
    "Timm",
    "Transformer",
    "encoder_for",
    "encoder_from",
]
