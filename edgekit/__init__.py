"""EdgeKit: takes a trained model to an Arm board or phone and tells you what it costs there."""

__version__ = "0.1.0"
