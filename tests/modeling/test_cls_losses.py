"""Classification losses: formulas, hand-derived numbers, other libraries' numbers, neutral settings, nasty batches."""

import math

import pytest
import torch
from fvcore.nn import sigmoid_focal_loss
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import cls_losses as reference
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

from d2_balanced.modeling import iteration_sums
from d2_balanced.modeling.cls_losses import (
    ClassBalanced,
    CrossEntropy,
    EQLv2,
    FocalLoss,
    GHMC,
    QualityFocal,
    SeesawLoss,
    Varifocal,
)
from d2_balanced.modeling.registry import CLS_LOSS_REGISTRY
from d2_balanced.modeling.spec import build_component

K = 3
BATCHES = {
    "mixed": [0, 1, 2, K, K, 1, K, 0, 1, K],
    "no foreground": [K, K, K],
    "one RoI": [1],
    "one background": [K],
    "no RoIs": [],
}
NEUTRAL = {
    "softmax": [
        CrossEntropy(),
        FocalLoss(gamma=0.0),
        GHMC(bins=1),
        SeesawLoss(p=0.0, q=0.0),
        ClassBalanced(beta=0.0),
    ],
    "sigmoid": [
        CrossEntropy(form="sigmoid"),
        FocalLoss(gamma=0.0, form="sigmoid"),
        GHMC(bins=1, form="sigmoid"),
        EQLv2(mu=-math.inf, objectness=False),
        ClassBalanced(beta=0.0, form="sigmoid"),
        QualityFocal(beta=0.0),
        Varifocal(alpha=1.0, gamma=0.0),
    ],
}
ALL = [
    lambda: CrossEntropy(),
    lambda: CrossEntropy(form="sigmoid"),
    lambda: FocalLoss(),
    lambda: FocalLoss(alpha=0.25, gamma=0.5),
    lambda: FocalLoss(alpha=0.25, form="sigmoid"),
    lambda: GHMC(),
    lambda: GHMC(form="sigmoid", divide_by="non_empty"),
    lambda: SeesawLoss(),
    lambda: EQLv2(),
    lambda: EQLv2(objectness=False),
    lambda: ClassBalanced(),
    lambda: ClassBalanced(class_counts=[1000, 10, 1], gamma=2.0, form="sigmoid"),
    lambda: QualityFocal(),
    lambda: Varifocal(ious="proposal"),
]
each_loss = pytest.mark.parametrize("make", ALL)
each_batch = pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES.keys())


def ready(loss):
    """The loss, which knows the number of classes."""
    if hasattr(loss, "adopt"):
        loss.adopt(K)
    return loss


def batch(labels, scale=2.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(len(labels), K + 1, generator=generator)).to(dtype)
    return logits.requires_grad_(), torch.tensor(labels, dtype=torch.int64)


def ious_of(loss, labels, value=None, seed=1):
    """The keyword that a loss wants: random IoUs of the foreground."""
    if not loss.wants_ious:
        return {}
    ious = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed))
    return {"ious": torch.where(labels < K, ious if value is None else torch.full_like(ious, value), 0.0)}


def train(loss, logits, labels):
    """What a training iteration with this pass changes."""
    if hasattr(loss, "accumulate"):
        loss.accumulate(logits, labels, **ious_of(loss, labels))
    end_iteration(loss)


def end_iteration(loss):
    for module in loss.modules():
        if hasattr(module, "end_iteration"):
            module.end_iteration(0)


def check(loss, expected, labels=BATCHES["mixed"], **keywords):
    """The loss of a batch is ``expected(logits, label, i)`` of each RoI."""
    logits, labels = batch(labels)
    wanted = [expected(row, label, i) for i, (row, label) in enumerate(zip(logits.tolist(), labels.tolist()))]
    torch.testing.assert_close(loss(logits, labels, **keywords), torch.tensor(wanted, dtype=torch.float64))


# --- formulas --------------------------------------------------------------------------------------------------------


def test_cross_entropies():
    check(CrossEntropy(), lambda z, y, i: reference.cross_entropy(z, y))
    check(CrossEntropy(form="sigmoid"), lambda z, y, i: reference.sigmoid_cross_entropy(z[:-1], y))


@pytest.mark.parametrize("gamma, alpha", [(2.0, -1.0), (2.0, 0.25), (0.5, 0.75), (0.0, 0.5), (5.0, 0.0)])
def test_focal(gamma, alpha):
    check(FocalLoss(gamma, alpha), lambda z, y, i: reference.focal(z, y, gamma, alpha))


@pytest.mark.parametrize("gamma, alpha", [(2.0, -1.0), (2.0, 0.25), (1.0, 0.75)])
def test_sigmoid_focal_is_fvcores_and_torchvisions(gamma, alpha):
    loss = FocalLoss(gamma, alpha, form="sigmoid")
    logits, labels = batch(BATCHES["mixed"], dtype=torch.float32)
    targets = F.one_hot(labels, K + 1)[:, :K].float()
    ours = loss(logits, labels)
    assert torch.equal(ours, sigmoid_focal_loss(logits[:, :K], targets, alpha, gamma).sum(1))
    torch.testing.assert_close(ours, torchvision_focal_loss(logits[:, :K], targets, alpha, gamma).sum(1))
    wanted = [reference.sigmoid_focal(z[:-1], y, gamma, alpha) for z, y in zip(logits.tolist(), labels.tolist())]
    torch.testing.assert_close(ours, torch.tensor(wanted))


def test_focal_of_the_papers_example():
    """Lin et al., sec. 3.2: with gamma 2, an example of p_t = 0.9 has a loss 100 times lower than cross entropy."""
    logits = torch.tensor([[math.log(0.9), math.log(0.1)]])
    ratio = CrossEntropy()(logits, torch.tensor([0])) / FocalLoss(2.0)(logits, torch.tensor([0]))
    assert ratio.item() == pytest.approx(100, rel=1e-5)


@pytest.mark.parametrize("divide_by", ["bins", "non_empty"])
@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_ghm_c_over_several_iterations(form, divide_by):
    loss = GHMC(bins=5, momentum=0.75, divide_by=divide_by, form=form)
    density = reference.GradientDensity(5, 0.75, divide_by)
    for seed in range(4):
        logits, labels = batch(BATCHES["mixed"], seed=seed)
        norms, entropies = [], []
        for z, y in zip(logits.tolist(), labels.tolist()):
            if form == "softmax":
                norms.append(1 - reference.softmax(z)[y])
                entropies.append(reference.cross_entropy(z, y))
                continue
            for k in range(K):
                norms.append(abs(reference.sigmoid(z[k]) - float(k == y)))
                entropies.append(reference.binary_cross_entropy(reference.sigmoid(z[k]), float(k == y)))
        wanted = torch.tensor([w * e for w, e in zip(density.weights(norms), entropies)], dtype=torch.float64)
        torch.testing.assert_close(loss(logits, labels), wanted.view(len(labels), -1).sum(1))
        train(loss, logits, labels)
        density.learn(norms)


def test_ghm_c_by_hand():
    """Three RoIs of 1 - p_t = 0.1 and one of 0.9, two bins: weights 4 / (2 * 3) and 4 / (2 * 1)."""
    logits = torch.log(torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9]]))
    loss = GHMC(bins=2, momentum=0.0)(logits, torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(loss, -torch.tensor([2 / 3 * math.log(0.9)] * 3 + [2 * math.log(0.1)]))


def test_evenly_spread_gradients_have_weight_1():
    norms = (torch.arange(30) + 0.5) / 30
    assert torch.equal(GHMC(bins=30).density(norms), torch.ones(30))


@pytest.mark.parametrize("given", [None, [100.0, 5.0, 20.0]])
@pytest.mark.parametrize("p, q", [(0.8, 2.0), (0.8, 0.0), (0.0, 2.0)])
def test_seesaw_over_several_iterations(p, q, given):
    loss, counts = ready(SeesawLoss(p, q, class_counts=given)), given or [0, 0, 0]
    for seed in range(3):
        logits, labels = batch(BATCHES["mixed"], seed=seed)
        wanted = [reference.seesaw(z, y, counts, p, q) for z, y in zip(logits.tolist(), labels.tolist())]
        torch.testing.assert_close(loss(logits, labels), torch.tensor(wanted, dtype=torch.float64))
        train(loss, logits, labels)
        counts = given or [n + labels.tolist().count(k) for k, n in enumerate(counts)]


def test_seesaw_by_hand():
    """Class 0 has 16 samples, class 1 has 1; p 0.5: class 1 is punished 1 / 4 as much by class 0, not vice versa."""
    loss = ready(SeesawLoss(p=0.5, q=1.0, class_counts=[16, 1, 1]))
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.5, 0.25, 0.125, 0.125]]))
    by_0 = -math.log(0.5 / (0.5 + 0.25 / 4 + 0.125 / 4 + 0.125))
    by_1 = -math.log(0.25 / (0.25 + 0.5 * 2 + 0.125 + 0.125))  # class 0 has twice the probability, and weighs double
    torch.testing.assert_close(loss(logits, torch.tensor([0, 1])), torch.tensor([by_0, by_1]))


@pytest.mark.parametrize("objectness", [True, False])
def test_eqlv2_over_several_iterations(objectness):
    loss = ready(EQLv2(objectness=objectness))
    state = reference.EqualizationV2(K, gamma=12.0, mu=0.8, alpha=4.0)
    for seed in range(4):
        logits, labels = batch(BATCHES["mixed"], seed=seed)
        rows = [(z if objectness else z[:-1], y) for z, y in zip(logits.tolist(), labels.tolist())]
        wanted = [state.loss(z, y) for z, y in rows]
        torch.testing.assert_close(loss(logits, labels), torch.tensor(wanted, dtype=torch.float64))
        train(loss, logits, labels)
        state.learn(rows)
    assert state.weights(2)[1] < 0.9  # the weights did something


def test_eqlv2_by_hand():
    """Logits of 0, class 0 once: positive gradients 0.5, 0, 0 and negative 0.5, 1, 1, so g is 1, 0, 0."""
    loss = ready(EQLv2(objectness=False))
    logits, labels = torch.zeros(2, K + 1), torch.tensor([0, K])
    torch.testing.assert_close(loss(logits, labels), torch.full((2,), 3 * math.log(2)))
    train(loss, logits, labels)
    r = [1 / (1 + math.exp(-12 * (g - 0.8))) for g in (1, 0, 0)]
    first = (1 + 4 * (1 - r[0])) + r[1] + r[2]
    torch.testing.assert_close(loss(logits, labels), math.log(2) * torch.tensor([first, sum(r)]))


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("form, gamma", [("softmax", 0.0), ("softmax", 2.0), ("sigmoid", 2.0)])
def test_class_balanced(beta, form, gamma):
    counts = [1000, 10, 1]
    weights = reference.class_balanced_weights(counts, beta) + [1.0]
    loss = ready(ClassBalanced(beta, class_counts=counts, gamma=gamma, form=form))
    if form == "softmax":
        check(loss, lambda z, y, i: weights[y] * reference.focal(z, y, gamma, -1))
    else:
        logits, labels = batch(BATCHES["mixed"])
        rows = zip(logits.tolist(), labels.tolist())
        wanted = [weights[y] * reference.sigmoid_focal(z[:-1], y, gamma, -1) for z, y in rows]
        torch.testing.assert_close(loss(logits, labels), torch.tensor(wanted), check_dtype=False)


def test_class_balanced_counts_the_positives():
    loss = ready(ClassBalanced(beta=0.99, num_objects=100))
    for labels in ([0, 0, 1, K], [0, K, K, K]):
        train(loss, *batch(labels))
    expected = reference.class_balanced_weights([75, 25, 1], 0.99) + [1.0]  # 3 : 1 : 0 of 100, at least 1
    torch.testing.assert_close(loss.weights(), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("beta", [2.0, 1.0, 0.0])
def test_quality_focal(beta):
    loss = QualityFocal(beta)
    ious = ious_of(loss, torch.tensor(BATCHES["mixed"]))
    check(loss, lambda z, y, i: reference.quality_focal(z[:-1], y, ious["ious"][i].item(), beta), **ious)


@pytest.mark.parametrize("alpha, gamma", [(0.75, 2.0), (1.0, 0.5)])
def test_varifocal(alpha, gamma):
    loss = Varifocal(alpha, gamma)
    ious = ious_of(loss, torch.tensor(BATCHES["mixed"]))
    check(loss, lambda z, y, i: reference.varifocal(z[:-1], y, ious["ious"][i].item(), alpha, gamma), **ious)


def test_quality_losses_vanish_where_the_score_is_the_iou():
    logits = torch.tensor([[math.log(0.7 / 0.3), -50.0, -50.0, 0.0]])
    for make, rest in ((QualityFocal, 0.0), (Varifocal, 0.7 * reference.binary_cross_entropy(0.7, 0.7))):
        loss = make()(logits, torch.tensor([0]), ious=torch.tensor([0.7]))
        assert loss.item() == pytest.approx(rest, abs=1e-6)


# --- neutral settings ------------------------------------------------------------------------------------------------


@each_batch
@pytest.mark.parametrize("form, loss", [(form, loss) for form in NEUTRAL for loss in NEUTRAL[form]])
def test_neutral_settings_are_cross_entropy_to_the_bit(form, loss, labels):
    results = []
    for each in (ready(loss), CrossEntropy(form=form)):
        logits, targets = batch(labels, dtype=torch.float32)
        rows = each(logits, targets, **ious_of(each, targets, value=1.0))
        rows.sum().backward()
        results.append((rows.detach(), logits.grad))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_initial_state_is_neutral_where_it_is_learned():
    """Before anything is counted no class is rarer than another."""
    logits, labels = batch(BATCHES["mixed"])
    assert torch.equal(ready(SeesawLoss(q=0.0))(logits, labels), CrossEntropy()(logits, labels))
    assert torch.equal(ready(ClassBalanced())(logits, labels), CrossEntropy()(logits, labels))


# --- nasty batches, state, precision ---------------------------------------------------------------------------------


@each_loss
@each_batch
def test_every_batch_trains(make, labels):
    loss = ready(make())
    for seed in range(2):  # the second pass has state
        logits, targets = batch(labels, seed=seed, dtype=torch.float32)
        rows = loss(logits, targets, **ious_of(loss, targets))
        assert rows.shape == (len(labels),)
        rows.sum().backward()
        assert torch.isfinite(rows).all() and logits.grad.isfinite().all()
        train(loss, logits, targets)


@each_loss
@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=K + 1, max_size=K + 1), st.integers(0, K))
def test_finite_everywhere(make, row, label):
    loss = ready(make())
    logits = torch.tensor([row, [0.0] * (K + 1)], requires_grad=True)
    labels = torch.tensor([label, 1])
    losses = loss(logits, labels, **ious_of(loss, labels))
    losses.sum().backward()
    assert losses.isfinite().all() and logits.grad.isfinite().all()


@each_loss
def test_calling_changes_nothing_and_accumulating_only_the_next_iteration(make):
    loss = ready(make())
    logits, labels = batch(BATCHES["mixed"])
    ious = ious_of(loss, labels)
    first = loss(logits, labels, **ious)
    assert torch.equal(loss(logits, labels, **ious), first)
    if hasattr(loss, "accumulate"):
        loss.accumulate(logits, labels)
        assert torch.equal(loss(logits, labels, **ious), first)


@each_loss
def test_a_checkpoint_has_all_of_the_state(make):
    loss, other = ready(make()), ready(make())
    for seed in range(3):
        train(loss, *batch(BATCHES["mixed"], seed=seed))
    other.load_state_dict(loss.state_dict())
    for seed in range(3, 6):
        logits, labels = batch(BATCHES["mixed"], seed=seed)
        ious = ious_of(loss, labels)
        assert torch.equal(loss(logits, labels, **ious), other(logits, labels, **ious))
        for each in (loss, other):
            train(each, logits, labels)


@pytest.mark.parametrize(
    "make, passes", [(SeesawLoss, 1), (ClassBalanced, 1), (EQLv2, 1), (GHMC, 2)], ids=["Seesaw", "CB", "EQLv2", "GHM-C"]
)
def test_passes_of_one_iteration_are_summed_or_of_ghm_their_mean(make, passes):
    loss, other = ready(make()), ready(make())
    logits, labels = batch(BATCHES["mixed"])
    for half in (slice(None, 5), slice(5, None)):
        loss.accumulate(logits[half], labels[half])
    end_iteration(loss)
    train(other, logits, labels)
    assert list(loss.state_dict()) == list(other.state_dict())
    for name, value in loss.state_dict().items():
        assert value.abs().sum() > 0
        torch.testing.assert_close(passes * value, other.state_dict()[name])


@pytest.mark.parametrize("make, twice", [(SeesawLoss, 2), (ClassBalanced, 2), (EQLv2, 2), (GHMC, 1)])
def test_all_processes_are_one_iteration(make, twice, monkeypatch):
    """As if another process had the same batch: counts and gradients are sums, GHM's counts the mean of the passes."""
    alone, together = ready(make()), ready(make())
    train(alone, *batch(BATCHES["mixed"]))
    monkeypatch.setattr(iteration_sums, "reduce_sum", lambda own: 2 * own)
    train(together, *batch(BATCHES["mixed"]))
    for name, value in alone.state_dict().items():
        assert value.abs().sum() > 0
        torch.testing.assert_close(together.state_dict()[name], twice * value)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_give_a_float32_loss(make, dtype):
    loss = ready(make())
    logits, labels = batch(BATCHES["mixed"], dtype=torch.float32)
    logits = logits.detach().to(dtype).requires_grad_()
    rows = loss(logits, labels, **ious_of(loss, labels))
    rows.sum().backward()
    assert rows.dtype == torch.float32 and logits.grad.dtype == dtype
    torch.testing.assert_close(rows, loss(logits.float(), labels, **ious_of(loss, labels)))


@each_loss
def test_loss_weight(make):
    loss = ready(make())
    logits, labels = batch(BATCHES["mixed"])
    once = loss(logits, labels, **ious_of(loss, labels))
    loss.loss_weight = 2.5
    torch.testing.assert_close(loss(logits, labels, **ious_of(loss, labels)), 2.5 * once)


# --- scores ----------------------------------------------------------------------------------------------------------


@each_loss
def test_scores(make):
    loss = ready(make())
    logits, _ = batch(BATCHES["mixed"])
    logits = logits.detach()
    scores = loss.scores(logits)
    assert scores.shape == logits.shape and ((scores >= 0) & (scores <= 1)).all()
    if loss.form == "softmax":
        assert torch.equal(scores, logits.softmax(1))
        return
    objects = 1 - logits[:, K].sigmoid() if loss.reads_background else torch.ones(len(logits))
    torch.testing.assert_close(scores[:, :K], logits[:, :K].sigmoid() * objects[:, None], check_dtype=False)
    if not loss.reads_background:
        torch.testing.assert_close(scores[:, K], 1 - scores[:, :K].amax(1))


def test_a_prior_is_the_score_before_training():
    assert CrossEntropy().initial_bias is None and CrossEntropy(form="sigmoid", prior=0.5).initial_bias == 0
    for prior, score in ((None, 0.01), (0.02, 0.02)):
        assert reference.sigmoid(FocalLoss(form="sigmoid", prior=prior).initial_bias) == pytest.approx(score)


# --- misuse ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cls, options, named",
    [
        (CrossEntropy, dict(form="relu"), "form"),
        (CrossEntropy, dict(prior=1.0), "prior"),
        (CrossEntropy, dict(prior=0.01), "prior"),
        (CrossEntropy, dict(loss_weight=math.nan), "loss_weight"),
        (FocalLoss, dict(gamma=-1.0), "gamma"),
        (FocalLoss, dict(gamma=0.5, form="sigmoid"), "gamma"),
        (FocalLoss, dict(alpha=1.5), "alpha"),
        (GHMC, dict(bins=0), "bins"),
        (GHMC, dict(momentum=1.0), "momentum"),
        (GHMC, dict(divide_by="all"), "divide_by"),
        (SeesawLoss, dict(p=-0.1), "p"),
        (SeesawLoss, dict(q=math.inf), "q"),
        (SeesawLoss, dict(form="sigmoid"), "form"),
        (SeesawLoss, dict(class_counts=[1.0, 0.0]), "class_counts"),
        (EQLv2, dict(gamma=0.0), "gamma"),
        (EQLv2, dict(mu=math.inf), "mu"),
        (EQLv2, dict(alpha=-1.0), "alpha"),
        (EQLv2, dict(form="softmax"), "form"),
        (ClassBalanced, dict(beta=1.1), "beta"),
        (ClassBalanced, dict(num_objects=0), "num_objects"),
        (QualityFocal, dict(beta=0.5), "beta"),
        (QualityFocal, dict(ious="true"), "ious"),
        (Varifocal, dict(alpha=-1.0), "alpha"),
    ],
)
def test_bad_settings_are_refused_by_name(cls, options, named):
    with pytest.raises(ValueError, match=f"{cls.__name__}: {named} must be .*[,;] got"):
        cls(**options)
    node = {"NAME": cls.__name__, **{name.upper(): value for name, value in options.items()}}
    said = rf"MODEL.BALANCED.CLS_LOSS(\.{named.upper()}: must|(\.\w+)?: {cls.__name__}: {named})"
    with pytest.raises(ValueError, match=said):
        build_component(CLS_LOSS_REGISTRY, node, "MODEL.BALANCED.CLS_LOSS")


@pytest.mark.parametrize("cls", [SeesawLoss, ClassBalanced])
def test_counts_that_are_not_as_many_as_the_classes_are_refused(cls):
    with pytest.raises(ValueError, match=f"{cls.__name__}: class_counts must have 3 numbers, one a class; got 2"):
        ready(cls(class_counts=[5.0, 3.0]))
    with pytest.raises(RuntimeError, match=f"{cls.__name__}: the number of classes is not known"):
        cls()(*batch([0]))
