#!/usr/bin/env bash
# What there is to know on a machine with one GPU, in under 8 minutes and without network: the tests that need CUDA, the
# host's work, training steps and inference against plain detectron2, and a short training of each method.
#
#     tools/gpu_check.sh [REPORT.md]      (default: output/gpu_check.md; the Python that is active, or PYTHON=...)
#
# Each step has a limit of time; one that fails is told in the report, with its last lines, and the others go on.
# The variables below in capitals are for smaller runs (tests/test_gpu_check.py).
set -u -o pipefail
cd "$(dirname "$0")/.."
report=${1:-output/gpu_check.md}
python=${PYTHON:-python}
device=${DEVICE:-cuda}
config=${CONFIG:-configs/coco/faster_rcnn_R_50_FPN_1x.yaml}
size=${SIZE:-800}
rounds=${ROUNDS:-6}
iterations=${ITERATIONS:-30}
read -ra images <<<"${IMAGES:-2 16}"
read -ra counted <<<"${COUNTED:-1 2 4 16}"
read -ra training <<<"${TRAINING:-}"
read -ra tests <<<"${TESTS-tests/test_cuda.py tests/engine/test_annealed_training.py tests/modeling/test_deform_conv.py}"
read -ra methods <<<"${METHODS:-configs/quick/faster_rcnn_R_18_FPN projects/LibraRCNN/configs/libra_quick
    projects/DynamicRCNN/configs/dynamic_quick projects/RGA_PRM/configs/rga_prm_quick
    projects/IoUUniformRCNN/configs/iou_uniform_quick projects/R3CNN/configs/r3_quick}"
IFS=: read -ra formats <<<"${FORMATS:-d2_balanced:channels last:bfloat16, channels last:bfloat16, channels last, folded}"
IFS=: read -ra compiled <<<"${COMPILED-channels last, compiled:bfloat16, channels last, compiled}"
read -ra only <<<"${COUNT_ONLY:-}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4} PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$(dirname "$report")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# A step: title, limit in seconds, command. What it prints becomes part of the report, or the last line of the file $shows.
step() {
    local title=$1 limit=$2 start=$SECONDS status
    shift 2
    echo "== $title"
    printf '\n## %s\n\n    %s\n\n' "$title" "${*//$python/python}" >>"$report"
    timeout "$limit" "$@" >"$work/out" 2>"$work/err"
    status=$?
    if [ $status -eq 0 ]; then
        if [ -n "${shows:-}" ]; then tail -n 1 "$shows"; else cat "$work/out"; fi >>"$report"
    else
        failed=$((failed + 1))
        { echo "Failed with status $status (124: over its ${limit} s)."; echo; tail -n 15 "$work/out" "$work/err" | sed 's/^/    /'; } >>"$report"
    fi
    printf '\n%d s\n' $((SECONDS - start)) >>"$report"
}

printf '# Check on a GPU\n\n' >"$report"
"$python" - "$device" >>"$report" <<'PYTHON' || exit 1
import platform, sys
import d2_balanced, detectron2, torch, torchvision
hardware = "no GPU: a dry run on the CPU"
if sys.argv[1] == "cuda":
    gpu = torch.cuda.get_device_properties(0)
    hardware = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
rows = {"hardware": hardware, "Python": platform.python_version(), "torch": torch.__version__,
        "torchvision": torchvision.__version__, "detectron2": detectron2.__version__}
print("| | |\n| --- | --- |")
print("\n".join(f"| {name} | {value} |" for name, value in rows.items()))
PYTHON

if [ ${#tests[@]} -gt 0 ]; then
    step "Tests that need CUDA" 100 "$python" -m pytest -q -p no:cacheprovider -k "cuda or fp16" "${tests[@]}"
fi
step "Operators and syncs of a training forward" 100 \
    "$python" benchmarks/host_work.py count --device "$device" --images "${counted[@]}" --size "${COUNTED_SIZE:-256}" \
    ${only[@]+--only "${only[@]}"}
for number in "${images[@]}"; do
    step "Training step, $number image(s)" 100 "$python" benchmarks/train_step.py --device "$device" --config-file "$config" \
        --images "$number" --size "$size" --rounds "$rounds" --no-memory --variants detectron2 "${formats[@]}"
done
if [ ${#compiled[@]} -gt 0 ]; then  # a step of its own: compiling may take its time
    step "Training step, backbone compiled" 100 "$python" benchmarks/train_step.py --device "$device" --config-file "$config" \
        --images "${images[0]}" --size "$size" --rounds "$rounds" --no-memory --variants detectron2 "${compiled[@]}"
fi
step "Inference" 60 "$python" benchmarks/inference.py --device "$device" --config-file "$config" --images "${images[-1]}" \
    --size "$size" --rounds "$rounds" --batches 1 "${images[-1]}" --variants "d2_balanced" "bfloat16, channels last"
for method in "${methods[@]}"; do
    name=$(basename "$method")
    shows="$work/$name/metrics.json" step "Short training: $name" 60 "$python" train_net.py --config-file "$method.yaml" \
        --output-dir "$work/$name" MODEL.DEVICE "$device" SOLVER.MAX_ITER "$iterations" SOLVER.LOG_PERIOD "$iterations" \
        TEST.EVAL_PERIOD 0 MODEL.LAYERS.PRECISION bfloat16 MODEL.LAYERS.CHANNELS_LAST True ${training[@]+"${training[@]}"}
done
printf '\n%d step(s) failed; %d s in all.\n' $failed $SECONDS | tee -a "$report"
[ $failed -eq 0 ]
