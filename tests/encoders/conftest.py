"""What several tests of encoders need."""

import pytest
import torch


@pytest.fixture
def tiny_encoder(tmp_path):
    """Makes a folder with a Hugging Face encoder of two layers and a WordPiece tokenizer."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    said = ["pay", "my", "the", "bill", "book", "a", "flight", "to", "now", "please", ",", "i"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *said]

    def make(name="tiny", kind="bert"):
        tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            if kind == "bert":
                sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
                model = transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **sizes))
            else:
                sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
                model = transformers.T5Model(transformers.T5Config(vocab_size=len(words), **sizes))
        model.save_pretrained(tmp_path / name)
        fast.save_pretrained(tmp_path / name)
        return tmp_path / name

    return make
