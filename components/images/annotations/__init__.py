"""Readers of annotated images: COCO JSON, Pascal VOC and YOLO, as people have them."""
