"""appbox turns container images into plain host services."""

__version__ = "0.1.0"
