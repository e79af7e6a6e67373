"""The samplers' rules, one candidate at a time: how likely each candidate is to be drawn.

Lists of floats and ints in, a list of probabilities out; written for reading, not for speed.
"""


def iou_balanced(neg_ious, all_ious, num, num_bins, floor_thr=-1, floor_fraction=0.0, upper="negatives"):
    """Probability of each negative (Libra R-CNN sec. 3.1, eq. 2, with the released floor and upper end)."""
    if len(neg_ious) <= num:
        return [1.0] * len(neg_ious)
    num_balanced = int(num * (1 - floor_fraction))
    is_floor = [_is_floor(iou, floor_thr) for iou in neg_ious]
    floor_size, others = is_floor.count(True), is_floor.count(False)
    num_floor = min(num - min(num_balanced, others), floor_size)
    bins = iou_bins(neg_ious, is_floor, all_ious, num_bins, floor_thr, upper)
    size = {k: bins.count(k) for k in range(num_bins)}
    from_bin = {k: min(num_balanced // num_bins, size[k]) for k in size}
    left = others - sum(from_bin.values())
    fill = (num - num_floor - sum(from_bin.values())) / left if left else 0.0
    probabilities = []
    for floor, k in zip(is_floor, bins):
        if floor:
            probabilities.append(num_floor / floor_size)
        else:
            in_bin = from_bin[k] / size[k] if k is not None else 0.0
            probabilities.append(in_bin + (1 - in_bin) * fill)
    return probabilities


def _is_floor(iou, floor_thr):
    if floor_thr == -1:
        return False
    return iou == 0 if floor_thr == 0 else iou < floor_thr


def iou_bins(neg_ious, is_floor, all_ious, num_bins, floor_thr, upper):
    """Bin of each negative; None for the floor and for what lies beyond the last bin."""
    low = max(floor_thr, 0.0)
    high = max(neg_ious if upper == "negatives" else all_ious)
    bins = []
    for iou, floor in zip(neg_ious, is_floor):
        k = None
        for candidate in range(num_bins):
            if iou >= low + candidate * (high - low) / num_bins:
                k = candidate
        if floor or (upper == "max_overlap" and iou >= high):
            k = None
        bins.append(k)
    return bins


def instance_balanced(matched_gt, num):
    """Probability of each positive (Libra R-CNN sec. 3.1, last paragraph); ``matched_gt``: its object."""
    if len(matched_gt) <= num:
        return [1.0] * len(matched_gt)
    objects = sorted(set(matched_gt))
    count = {g: matched_gt.count(g) for g in objects}
    first = {g: min(round(num / len(objects)) + 1, count[g]) for g in objects}
    total = sum(first.values())
    if total > num:
        return [first[g] / count[g] * num / total for g in matched_gt]
    fill = (num - total) / (len(matched_gt) - total)
    return [first[g] / count[g] + (1 - first[g] / count[g]) * fill for g in matched_gt]
