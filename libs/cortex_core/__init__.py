"""Words both daemons share: settings, catalogue, neuron wire types, errors."""

__version__ = "0.1.0"

__all__ = ["__version__"]
