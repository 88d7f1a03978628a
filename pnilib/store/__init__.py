"""What lies on disk: artefacts that are complete or absent, locks, text in one encoding."""
