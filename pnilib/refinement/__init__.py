"""Pixelwise refinement (paper sec. 3.3, supplement S2).

`network` f(I, A_hat) - `losses` eqs. (10), (11) - `pool` the training set D, `folds` cross-fitting - `augmentation` -
`training` - `fusion` the final map - `refine` all of it, for the models of a run.  Synthetic defects: pnilib.synthesis.
"""
