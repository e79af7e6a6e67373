"""CrowdHuman's metrics with plain loops over boxes, as golden/README.md section 7 words them."""

import itertools
import math

REFS = (0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1.0)


def clip(box, width, height):
    x, y, w, h = box
    x1, y1 = max(0.0, min(x, width - 1)), max(0.0, min(y, height - 1))
    return x1, y1, max(0.0, min(x + w, width)), max(0.0, min(y + h, height))


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def intersection(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def iou(a, b):
    return intersection(a, b) / (area(a) + area(b) - intersection(a, b) + 1e-6)


def in_ignore(box, ignored):
    return any(intersection(box, region) / (area(box) + 1e-6) > 0.5 for region in ignored)


def split(image):
    boxes = [clip(box, image["width"], image["height"]) for box in image["boxes"]]
    people = [box for box, ignore in zip(boxes, image["ignore"]) if not ignore]
    return people, [box for box, ignore in zip(boxes, image["ignore"]) if ignore]


def curve(images, detections):
    """[(score, 1 or 0)] by descending score, and the number of people."""
    outcomes, num_people = [], 0
    for image in images:
        people, ignored = split(image)
        num_people += len(people)
        boxes, scores = detections.get(image["id"], ((), ()))
        pairs = sorted(zip(scores, boxes), key=lambda pair: -pair[0])
        free = list(range(len(people)))
        for score, box in pairs:
            box = clip(box, image["width"], image["height"])
            best, best_iou = None, 0.5
            for person in free:
                if iou(box, people[person]) > best_iou:
                    best, best_iou = person, iou(box, people[person])
            if best is not None:
                free.remove(best)
                outcomes.append((score, 1))
            elif not in_ignore(box, ignored):
                outcomes.append((score, 0))
    return sorted(outcomes, key=lambda outcome: -outcome[0]), num_people


def ap_mr_recall(images, detections):
    outcomes, num_people = curve(images, detections)
    points, found = [], 0  # recall, precision, false positives per image
    for number, (_, right) in enumerate(outcomes, start=1):
        found += right
        points.append((found / num_people, found / number, (number - found) / len(images)))
    ap = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in zip(points, points[1:]))
    rates = []
    for ref in REFS:
        at = next((point for point in points if point[2] >= ref), points[-1])
        rates.append(1 - at[0])
    mr = 0.0 if min(rates) == 0 else math.exp(sum(map(math.log, rates)) / len(rates))
    return ap, mr, points[-1][0]


def jaccard(images, detections, threshold):
    """Mean of k / (m + n - k) with the best of all pairings: a few boxes an image only."""
    values = []
    for image in images:
        people, ignored = split(image)
        boxes, scores = detections.get(image["id"], ((), ()))
        found = [clip(box, image["width"], image["height"]) for box, s in zip(boxes, scores) if s > threshold]
        pairs = best_pairing(found, people)
        n = sum(k in [a for a, _ in pairs] or not in_ignore(box, ignored) for k, box in enumerate(found))
        m = sum(k in [b for _, b in pairs] or not in_ignore(box, ignored) for k, box in enumerate(people))
        if m or n:
            values.append(len(pairs) / (m + n - len(pairs) + 1e-6))
    return sum(values) / len(values) if values else float("nan")


def best_pairing(found, people):
    """Pairs (detection, person) of IoU > 0.5 with the greatest sum of IoU, by trying all."""
    edges = [(a, b) for a in range(len(found)) for b in range(len(people)) if iou(found[a], people[b]) > 0.5]
    best, best_sum = [], 0.0
    for count in range(1, min(len(found), len(people)) + 1):
        for chosen in itertools.combinations(edges, count):
            if len({a for a, _ in chosen}) == len({b for _, b in chosen}) == count:
                total = sum(iou(found[a], people[b]) for a, b in chosen)
                if total > best_sum:
                    best, best_sum = list(chosen), total
    return best
