"""Training and test images of every category of the paper's data sets.

MVTec AD: 3,629 and 1,725 images (PNI sec. 4.1).  VisA: its one-class split; 9,621 normal images, of which 8,659 train,
and 1,200 anomalous ones, 10,821 in all (sec. 4.1).  BTAD: as distributed, 1,799 and 741; the paper says "2,830 images",
1,800 of them for training.
"""

__all__ = ["PAPER_COUNTS"]

PAPER_COUNTS: dict[str, dict[str, tuple[int, int]]] = {
    "mvtec": {
        "bottle": (209, 83), "cable": (224, 150), "capsule": (219, 132), "carpet": (280, 117), "grid": (264, 78),
        "hazelnut": (391, 110), "leather": (245, 124), "metal_nut": (220, 115), "pill": (267, 167),
        "screw": (320, 160), "tile": (230, 117), "toothbrush": (60, 42), "transistor": (213, 100), "wood": (247, 79),
        "zipper": (240, 151),
    },
    "btad": {"01": (400, 70), "02": (399, 230), "03": (1000, 441)},
    "visa": {
        "candle": (900, 200), "capsules": (542, 160), "cashew": (450, 150), "chewinggum": (453, 150),
        "fryum": (450, 150), "macaroni1": (900, 200), "macaroni2": (900, 200), "pcb1": (904, 200), "pcb2": (901, 200),
        "pcb3": (905, 201), "pcb4": (904, 201), "pipe_fryum": (450, 150),
    },
}  # fmt: skip
"""data set -> category -> (training images, test images)."""
