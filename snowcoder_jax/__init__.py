"""SnowCoder-JAX: the three-phase recipe of Arctic-SnowCoder, open and JAX-native."""

__version__ = "0.1.0"
