"""NSA: a detector learnt from scratch from natural synthetic anomalies (Schlüter et al., ECCV 2022).

The tasks it is trained on are in `pnilib.synthesis.nsa_tasks`; here are its settings, network, training and detector.
"""
