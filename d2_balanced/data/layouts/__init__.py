"""Data as people have them: a folder in COCO's, YOLO's or Pascal VOC's layout, found by looking, read as COCO JSON.

The readers are our own. globox and supervision were considered; they read boxes, but what is broken is left out, or
stops them, without its file and line, globox has no polygons, and supervision opens images in its own
way. What is read of an image, and of the COCO JSON that results, is the package's one reading of both.
"""

from .folder import FolderData, data_of_folder, set_aside

__all__ = ["FolderData", "data_of_folder", "set_aside"]
