"""How good detections and segmentations are."""
