"""Random data sets and detections in COCO's format, with everything that COCO's rules treat specially."""

import numpy as np
import pycocotools.mask as mask_util

SIZE = 160


def ellipse(rng, box):
    """A binary mask (SIZE, SIZE) of a noisy ellipse in the box."""
    x, y, w, h = box
    rows, columns = np.mgrid[:SIZE, :SIZE]
    inside = ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1
    return (inside & (rng.random((SIZE, SIZE)) > 0.05)).astype(np.uint8)


def encode(mask):
    rle = mask_util.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode("ascii")}


def random_box(rng):
    w, h = rng.uniform(4, 130, 2)
    return [float(v) for v in (rng.uniform(0, SIZE - w), rng.uniform(0, SIZE - h), w, h)]


def jittered(rng, box, amount):
    x, y, w, h = box
    dx, dy = rng.normal(0, amount, 2) * (w, h)
    return [float(v) for v in (x + dx, y + dy, w * np.exp(rng.normal(0, amount)), h * np.exp(rng.normal(0, amount)))]


def random_dataset(seed, num_images=12, num_classes=4, masks=False):
    """A COCO dict: crowds, objects of all sizes, images without objects, a class without objects, id gaps."""
    rng = np.random.default_rng(seed)
    images = [{"id": 3 * k + 5, "width": SIZE, "height": SIZE, "file_name": f"{k}.png"} for k in range(num_images)]
    annotations = []
    for k, image in enumerate(images):
        for _ in range(0 if k % 5 == 4 else rng.integers(1, 9)):
            box, crowd = random_box(rng), int(rng.random() < 0.15)
            annotation = {"id": len(annotations) + 1, "image_id": image["id"], "iscrowd": crowd, "bbox": box}
            annotation["category_id"] = int(10 + 2 * rng.integers(0, num_classes - 1))  # the last one stays empty
            annotation["area"] = float(box[2] * box[3] * rng.uniform(0.5, 1))
            if masks:
                annotation["segmentation"] = encode(ellipse(rng, box))
            annotations.append(annotation)
    categories = [{"id": 10 + 2 * k, "name": f"class{k}"} for k in range(num_classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def random_results(seed, coco, per_image=20, masks=False):
    """COCO results: near the objects and elsewhere, also wrong classes, scores with many ties, one image without."""
    rng = np.random.default_rng(seed + 10_000)
    categories = [category["id"] for category in coco["categories"]]
    results = []
    for image in coco["images"][1:]:
        objects = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        for _ in range(per_image):
            target = objects[rng.integers(len(objects))] if objects and rng.random() < 0.8 else None
            box = jittered(rng, target["bbox"], rng.choice([0.01, 0.05, 0.15])) if target else random_box(rng)
            near = target is not None and rng.random() < 0.85
            result = {"image_id": image["id"], "bbox": box, "score": float(np.round(rng.random(), rng.choice([1, 3])))}
            result["category_id"] = target["category_id"] if near else int(rng.choice(categories))
            if masks:
                result["segmentation"] = encode(ellipse(rng, box))
            results.append(result)
    return results
