"""Train fine, calibrated, instance-level models from whatever labels you have."""

__version__ = "0.1.0"
