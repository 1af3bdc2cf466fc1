"""maskedge on the device: camera loop, models and sinks, without TensorFlow."""

__version__ = "0.1.0"
