"""Images: references, registries, layouts, layers and the runtime specification."""
