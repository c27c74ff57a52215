"""What a detector finds that looks at no image: the usual box of each class."""

import numpy as np
from numpy.typing import NDArray

from components.images.measures import average_precision
from components.images.measures.average_precision import Floats
from components.tasks.object_detection.prepare import Images


def map50(train: Images, test: Images) -> float:
    """Return mAP@.5 if every test image has one detection of each class, its median box in the training split.

    The median is that of each side, as a share of the image's width or height. The score of a class is its share of
    the training objects, so that of more than 100 classes the most frequent ones are detected.
    """
    labels, sides = _objects(train)
    known, counts = np.unique(labels, return_counts=True)
    usual = np.array([np.median(sides[labels == label], axis=0) for label in known])  # (C, 4)
    tables = []
    for index, (height, width) in enumerate(test.sizes.tolist()):
        found = (usual * [width, height, width, height], counts / counts.sum(), known)
        tables.append(average_precision.table(found, test.true(index), average_precision.THRESHOLDS[:1]))
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    return average_precision.mean(columns, np.ones(len(columns["label"])))


def _objects(images: Images) -> tuple[NDArray[np.int64], Floats]:
    """Return the label of each object, (N,), and its sides as shares of its image's, (N, 4); no crowd regions."""
    boxes, height_and_width = images.boxes.values.double().numpy(), images.pixels.shapes.numpy()
    size = np.repeat(height_and_width[:, ::-1], images.boxes.shapes[:, 0].numpy(), axis=0)
    own = boxes[:, 5] == 0
    return boxes[own, 4].astype(np.int64), boxes[own, :4] / np.tile(size[own], 2)
