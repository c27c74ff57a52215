"""The classes of Cityscapes' masks of labelIds (Cordts et al. 2016, arXiv:1604.01685).

The ids are those of helpers/labels.py in https://github.com/mcordts/cityscapesScripts.
"""

from components.images.masks.mask_files import VOID, from_values

IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26,
    "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
"""The 19 classes that are evaluated, in the order of their trainIds."""
TABLE = from_values(IDS, [*(each for each in range(34) if each not in IDS.values()), VOID])
"""Pixels of other ids have no class; tools store that of licence plates, -1, as VOID."""
