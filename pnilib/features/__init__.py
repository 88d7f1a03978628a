"""Images -> patch features (paper sec. 2): backbones, their weights, aggregation, standardisation, extraction."""
