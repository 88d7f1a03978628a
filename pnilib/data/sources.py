"""Where the public data sets come from.

Checksums: we cannot reach the publishers' servers from where this was written, and none of them publishes a SHA-256.
The values here are those that independent public projects report for the same links.
"""

from dataclasses import dataclass

__all__ = ["SOURCES", "Source"]


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.  url None: its terms must be accepted by hand on `page`."""

    title: str
    page: str
    licence: str
    url: str | None = None
    archive: str = ""
    sha256: str | None = None


_MTD_COMMIT = "cc4eb530b57b9cb7225bf76023873043ffd50655"

SOURCES = {
    "mvtec": Source(
        "MVTec AD (Bergmann et al. 2019)",
        "https://www.mvtec.com/company/research/datasets/mvtec-ad",
        "CC BY-NC-SA 4.0",
    ),
    "btad": Source(
        "BTAD, beanTech (Mishra et al. 2021)",
        "https://avires.dimi.uniud.it/papers/btad/",
        "none stated with the archive that we could find: ask the authors before any commercial use",
        "https://avires.dimi.uniud.it/papers/btad/btad.zip",
        "btad.zip",
        # as reported by open-edge-platform/anomalib and three other public projects
        "461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
    ),
    "visa": Source(
        "VisA (Zou et al. 2022)",
        "https://github.com/amazon-science/spot-diff",
        "CC BY 4.0",
        "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
        "VisA_20220922.tar",
        # 1,929,840,640 bytes; as reported by ten public projects
        "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
    ),
    "mtd": Source(
        "Magnetic Tile Defects (Huang et al. 2018)",
        "https://github.com/abin24/Magnetic-tile-defect-datasets.",
        "no licence file; the authors welcome its use and ask to be cited",
        f"https://github.com/abin24/Magnetic-tile-defect-datasets./archive/{_MTD_COMMIT}.zip",
        "magnetic-tile-defects.zip",
        # as reported by one public project; GitHub does not promise that archives stay byte-identical
        "592b050953d1de4ffa538b93b6b91aee7268d8e59b73d4d9c92cfce187d7ce66",
    ),
}
"""Data sets that are somewhere else.  `demo` is drawn by pnilib.demo; `folder` is the user's own."""
