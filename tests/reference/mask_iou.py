"""Mask IoU targets, pixel by pixel (Mask Scoring R-CNN)."""


def area_ratio(mask, box):
    """``mask``: rows of 0 and 1; ``box``: x1, y1, x2, y2. The share of the mask's pixels in the truncated box."""
    x1, y1, x2, y2 = (int(v) for v in box)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    full = inside = 0
    for y, row in enumerate(mask):
        for x, pixel in enumerate(row):
            full += pixel
            inside += pixel * (x1 <= x < x2 and y1 <= y < y2)
    return inside / full if full else 0.0


def mask_iou(probabilities, crop, ratio):
    """IoU of the predicted cells with the whole object, whose cells in the box are ``crop``; 0 for two empty masks."""
    overlap = predicted = inside = 0
    for predicted_row, crop_row in zip(probabilities, crop):
        for p, cell in zip(predicted_row, crop_row):
            overlap += p > 0.5 and cell == 1
            predicted += p > 0.5
            inside += cell
    union = predicted - overlap + (inside / ratio if ratio else inside / 1e-7)
    return overlap / union if union else 0.0
