"""What the authors' code does otherwise than their paper says: each step that it replaces, as a function of its own.

`pnilib.config.RELEASED_STEPS` has the names, `pnilib.detector.steps` puts the functions in their place, and
`differences` says of each difference where it is, what changes, and what that was measured to do.  Facts about the
authors' code, none of its lines.
"""
