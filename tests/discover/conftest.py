"""What several tests of hidden classes need."""

from tests.encoders.conftest import tiny_encoder

__all__ = ["tiny_encoder"]
