"""What ``recording/recorder.py`` counts, one RoI at a time in plain Python."""

import math

BINS, MAX_OBJECTS, MAX_POSITIVES = 20, 30, 30


def count_step(targets, labeled, samples, logits, deltas, weights, num_classes, other=None, with_box_loss=True, predicted=None):
    """Fields of one stage and branch, as ``{name: list}``.

    ``logits``, ``deltas``: nested lists with a row for each of the samples of all images in turn; ``weights``: of the
    box deltas; ``other``: pairs of logits of this and of the main branch on the main branch's RoIs; ``predicted``: the
    IoUs that an IoU branch predicts, one a row.
    """
    fields = {name: [0.0] * BINS for name in (
        "positive_scores", "negative_scores", "score_differences", "proposal_ious", "positive_ious", "positive_iou_sum",
        "negative_ious", "refined_ious", "refined_iou_sum", "cls_loss", "box_loss", "cls_gradient", "box_gradient",
        "predicted_ious", "predicted_iou_sum", "predicted_iou_true_sum",
        *(f"target_{name}{kind}" for name in "xywh" for kind in ("", "_squares")),
    )}  # fmt: skip
    fields.update({name: [0.0] for name in (
        "images", "positives", "negatives", "appended_gt", "positives_correct", "negatives_correct", "best_iou_sum",
        "best_error_sum",
    )})  # fmt: skip
    for name in ("images_by_objects", "positives_by_objects", "squared_positives_by_objects"):
        fields[name] = [0.0] * (MAX_OBJECTS + 1)
    fields.update({name: [0.0] * (MAX_POSITIVES + 1) for name in ("objects_by_positives", "objects_by_samples")})
    fields.update({name: [0.0] * num_classes for name in ("class_objects", "class_positives")})
    for objects, image, sampled in zip(targets, labeled, samples):
        _count_image(fields, len(objects), image, num_classes)
        if len(objects):
            _count_targets(fields, image, weights)
        for k in range(len(objects)):
            fields["class_objects"][int(objects.gt_classes[k])] += 1
            for name, of in (("objects_by_positives", image), ("objects_by_samples", sampled)):
                fields[name][min(_positives_of(k, of, num_classes), MAX_POSITIVES)] += 1
    row = 0
    for image in samples:
        for k in range(len(image)):
            _count_roi(fields, image, k, logits[row], deltas[row], weights, num_classes, with_box_loss)
            if predicted and not bool(image.is_gt[k]):
                fields["predicted_ious"][_bin(predicted[row])] += 1
                fields["predicted_iou_sum"][_bin(predicted[row])] += predicted[row]
                fields["predicted_iou_true_sum"][_bin(predicted[row])] += float(image.matched_ious[k])
            row += 1
    for own, main in other or []:
        fields["score_differences"][_bin(abs(_foreground(own) - _foreground(main)))] += 1
    return fields


def _count_image(fields, num_objects, image, num_classes):
    positives = 0
    for k in range(len(image)):
        label = int(image.gt_classes[k])
        if label == -1 or bool(image.is_gt[k]):
            continue
        fields["proposal_ious"][_bin(float(image.matched_ious[k]))] += 1
        positives += label < num_classes
    number = min(num_objects, MAX_OBJECTS)
    fields["images"][0] += 1
    fields["images_by_objects"][number] += 1
    fields["positives_by_objects"][number] += positives
    fields["squared_positives_by_objects"][number] += positives * positives


def _count_targets(fields, image, weights):
    ious, errors = [], []
    for k in range(len(image)):
        if int(image.gt_classes[k]) == -1 or bool(image.is_gt[k]):
            continue
        iou = float(image.matched_ious[k])
        target = _encode(image.proposal_boxes.tensor[k].tolist(), image.gt_boxes.tensor[k].tolist(), (1, 1, 1, 1))
        for name, value in zip("xywh", target):
            fields[f"target_{name}"][_bin(iou)] += value
            fields[f"target_{name}_squares"][_bin(iou)] += value * value
        ious.append(iou)
        errors.append((weights[0] * abs(target[0]) + weights[1] * abs(target[1])) / 2)
    if ious:
        fields["best_iou_sum"][0] += sorted(ious, reverse=True)[min(75, len(ious)) - 1]
        fields["best_error_sum"][0] += sorted(errors)[min(10, len(errors)) - 1]


def _positives_of(index, image, num_classes):
    labels, matched, appended = (v.tolist() for v in (image.gt_classes, image.matched_idxs, image.is_gt))
    return sum(m == index and 0 <= c < num_classes and not gt for c, m, gt in zip(labels, matched, appended))


def _count_roi(fields, image, k, logits, deltas, weights, num_classes, with_box_loss):
    label, appended, iou = int(image.gt_classes[k]), bool(image.is_gt[k]), float(image.matched_ious[k])
    kind = "positive" if label < num_classes else "negative"
    fields[f"{kind}s"][0] += 1
    fields[f"{kind}s_correct"][0] += logits.index(max(logits)) == label
    fields[f"{kind}_scores"][_bin(_foreground(logits))] += 1
    if kind == "positive":
        fields["class_positives"][label] += 1
    if appended:
        fields["appended_gt"][0] += kind == "positive"
        return
    fields[f"{kind}_ious"][_bin(iou)] += 1
    total = sum(math.exp(v) for v in logits)
    fields["cls_loss"][_bin(iou)] += math.log(total) - logits[label]
    errors = [math.exp(v) / total - (c == label) for c, v in enumerate(logits)]
    fields["cls_gradient"][_bin(iou)] += math.sqrt(sum(e * e for e in errors))
    if kind == "negative":
        return
    own = deltas if len(deltas) == 4 else deltas[4 * label : 4 * label + 4]
    proposal, gt_box = image.proposal_boxes.tensor[k].tolist(), image.gt_boxes.tensor[k].tolist()
    after = _iou(_clip(_decode(own, proposal, weights), image.image_size), gt_box)
    fields["positive_iou_sum"][_bin(iou)] += iou
    fields["refined_ious"][_bin(after)] += 1
    fields["refined_iou_sum"][_bin(iou)] += after
    if with_box_loss:
        target = _encode(proposal, gt_box, weights)
        fields["box_loss"][_bin(iou)] += sum(abs(a - b) for a, b in zip(own, target))
        fields["box_gradient"][_bin(iou)] += math.sqrt(sum(a != b for a, b in zip(own, target)))  # L1: each +-1


def _bin(value):
    return min(int(value * BINS), BINS - 1)


def _foreground(logits):
    return 1 - math.exp(logits[-1]) / sum(math.exp(v) for v in logits)


def _centre(box):
    x0, y0, x1, y1 = box
    return x0 + 0.5 * (x1 - x0), y0 + 0.5 * (y1 - y0), x1 - x0, y1 - y0


def _encode(box, goal, weights):
    (x, y, w, h), (gx, gy, gw, gh) = _centre(box), _centre(goal)
    plain = ((gx - x) / w, (gy - y) / h, math.log(gw / w), math.log(gh / h))
    return [a * b for a, b in zip(plain, weights)]


def _decode(deltas, box, weights):
    dx, dy, dw, dh = (a / b for a, b in zip(deltas, weights))
    x, y, w, h = _centre(box)
    limit = math.log(1000 / 16)
    x, y, w, h = x + dx * w, y + dy * h, w * math.exp(min(dw, limit)), h * math.exp(min(dh, limit))
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def _clip(box, size):
    height, width = size
    return [min(max(v, 0), limit) for v, limit in zip(box, (width, height, width, height))]


def _iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0) * max(height, 0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return inner / (area - inner) if inner else 0.0
