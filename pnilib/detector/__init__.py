"""PNI as a whole: the estimator, the stages of its fit, scoring and its explanation, refinement, runs on disk."""
