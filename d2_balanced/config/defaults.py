"""The yacs keys that this project adds to detectron2's."""

from detectron2.config import CfgNode, get_cfg

import d2_balanced.modeling  # noqa: F401  (registers what the keys name)

__all__ = ["add_balanced_config", "get_balanced_cfg"]


def _spec(name: str) -> CfgNode:
    """A node that names a registered component and takes whatever arguments its constructor has."""
    return CfgNode({"NAME": name}, new_allowed=True)


def add_balanced_config(cfg: CfgNode) -> None:
    """Add the keys of d2_balanced to ``cfg``, in place. At these defaults every model is plain detectron2's."""
    # Modules with components of one's own, imported after the config is read (docs/OWN_COMPONENTS.md).
    cfg.IMPORTS = []

    balanced = cfg.MODEL.BALANCED = CfgNode()
    # The R-CNN stage (MODEL.ROI_HEADS.NAME: BalancedROIHeads). Thresholds, batch size, positive fraction and the
    # loss's beta are detectron2's own keys.
    balanced.MATCHER = _spec("FixedMatcher")
    balanced.SAMPLER = _spec("RandomSampler")
    balanced.CLS_LOSS = _spec("CrossEntropy")
    balanced.BOX_LOSS = _spec("SmoothL1")
    # What the predicted values mean. Empty: four deltas, MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS.
    balanced.BOX_CODER = _spec("")
    # Boxes that join the proposals in training. Empty: none.
    balanced.EXTRA_PROPOSALS = _spec("")
    # What weighs the sampled RoIs, or chooses them, by what is predicted for them. Empty: all weigh the same.
    balanced.SAMPLE_WEIGHTS = _spec("")
    balanced.STAGES = _spec("SingleStage")
    balanced.IOU_BRANCH = _spec("")
    balanced.MASKS = _spec("FirstStageMasks")
    balanced.MASK_IOU_HEAD = _spec("")
    # Empty: detectron2's, MODEL.ROI_BOX_HEAD.POOLER_TYPE and MODEL.ROI_MASK_HEAD.POOLER_TYPE.
    balanced.BOX_POOLER = _spec("")
    balanced.MASK_POOLER = _spec("")
    # Parallel branches, each a mapping {POSITIVE_FRACTION, BATCH_SIZE_PER_IMAGE, SAMPLER: {NAME, ...}}; what is left
    # out is as in MODEL.ROI_HEADS and MODEL.BALANCED.SAMPLER. Empty: one branch.
    balanced.BRANCHES = []
    # Which branches (indices) are merged at inference. Empty: all.
    balanced.TEST_BRANCHES = []
    # How duplicates are removed at inference. Thresholds are MODEL.ROI_HEADS.SCORE_THRESH_TEST and NMS_THRESH_TEST.
    balanced.NMS = _spec("NMS")

    # How the layers compute, in training, evaluation and prediction (d2_balanced/modeling/fast_layers.py). PRECISION:
    # float32 or bfloat16; what is done with the layers' results stays in float32.
    cfg.MODEL.LAYERS = CfgNode()
    cfg.MODEL.LAYERS.PRECISION = "float32"
    cfg.MODEL.LAYERS.CHANNELS_LAST = False
    cfg.MODEL.LAYERS.FOLD_FROZEN_NORM = False

    # MODEL.PROPOSAL_GENERATOR.NAME: BalancedRPN
    balanced.RPN = CfgNode()
    balanced.RPN.SAMPLER = _spec("RandomSampler")
    balanced.RPN.CLS_LOSS = _spec("CrossEntropy")  # of sigmoids, as every loss of an RPN or RetinaNet
    balanced.RPN.BOX_LOSS = _spec("SmoothL1")
    # What the RPN's losses are divided by: "batch_size" (images times RPN.BATCH_SIZE_PER_IMAGE) or "sampled" (the anchors
    # that were sampled). Empty: "sampled" where the sampler has a NEG_POS_UB, else "batch_size".
    balanced.RPN.NORMALIZER = ""

    # MODEL.META_ARCHITECTURE: BalancedRetinaNet
    balanced.RETINANET = CfgNode()
    balanced.RETINANET.CLS_LOSS = _spec("FocalLoss")
    balanced.RETINANET.BOX_LOSS = _spec("SmoothL1")
    balanced.RETINANET.NMS = _spec("NMS")

    # The arguments of BalancedFPN (REFINE_LEVEL, REFINEMENT), of PAFPN (FORM) and of add_context_blocks (STAGES, RATIO), for
    # the backbones whose names have "balanced", "pafpn" or "context" in them (d2_balanced/modeling/backbone/build.py).
    balanced.FPN = CfgNode(new_allowed=True)
    balanced.PAFPN = CfgNode(new_allowed=True)
    balanced.CONTEXT = CfgNode(new_allowed=True)

    # An optimizer step's IMS_PER_BATCH images are split into this many forward passes (less memory, same step).
    cfg.SOLVER.ACCUMULATE = 1
    # Iterations between two lines of the log, metrics.json and results.csv.
    cfg.SOLVER.LOG_PERIOD = 20
    # How many of the periodic checkpoints stay, the newest ones. 0: all.
    cfg.SOLVER.MAX_TO_KEEP = 100

    # The arguments of GradientAnnealing (d2_balanced/engine/gradient_annealing.py): INITIAL, ANNEALED, TOTAL,
    # PARAMETERS. INITIAL 1: no annealing.
    cfg.SOLVER.GRADIENT_ANNEALING = CfgNode({"INITIAL": 1.0}, new_allowed=True)

    # Boxes marked `iscrowd` in the training sets: proposals and anchors inside them are neither positive nor negative
    # (BalancedROIHeads, BalancedRPN). False: such boxes are left out, and what they cover is background.
    cfg.INPUT.IGNORE_REGIONS = False
    # Whether the boxes of objects are clipped to the image before training, as in detectron2.
    cfg.INPUT.CLIP_BOXES = True

    # Record what the ROI heads (BalancedROIHeads) train on in OUTPUT_DIR/imbalance.jsonl, a line every PERIOD iterations
    # (docs/ANALYSIS.md). GRADIENT_PERIOD: iterations between two measurements of every head's gradient at one parameter
    # of the backbone, 0: none.
    cfg.ANALYSIS = CfgNode()
    cfg.ANALYSIS.RECORD = False
    cfg.ANALYSIS.PERIOD = 20
    cfg.ANALYSIS.GRADIENT_PERIOD = 0
    cfg.ANALYSIS.GRADIENT_PARAMETER = "backbone.bottom_up.res5.0.conv1.weight"

    # The run in MLflow (name of the experiment) and in Weights & Biases (name of the project), as extras; empty: not.
    cfg.TRACKING = CfgNode()
    cfg.TRACKING.MLFLOW = ""
    cfg.TRACKING.WANDB = ""

    # A COCO-format data set by its paths; the number of classes is then taken from it. Empty: DATASETS.TRAIN / TEST.
    cfg.DATASETS.TRAIN_JSON = ""
    cfg.DATASETS.TRAIN_IMAGES = ""
    cfg.DATASETS.VAL_JSON = ""
    cfg.DATASETS.VAL_IMAGES = ""
    # Whether warnings of the check that data sets get before training are errors.
    cfg.DATASETS.STRICT = False

    # Images of one size that the model evaluates at once; more than 1 moves the last digits.
    cfg.TEST.IMS_PER_BATCH = 1
    # The metric whose best value model_best.pth keeps.
    cfg.TEST.BEST_METRIC = "bbox/AP"
    # Whether every evaluation writes the page of the mistakes, inference/<data set>/errors/errors.html (docs/ERRORS.md).
    cfg.TEST.ERRORS = True
    # Training ends after this many evaluations in a row without a new best value. 0: never.
    cfg.TEST.PATIENCE = 0


def get_balanced_cfg() -> CfgNode:
    """detectron2's default config with this project's keys."""
    cfg = get_cfg()
    add_balanced_config(cfg)
    return cfg
