from setuptools import find_packages, setup

setup(
    name="d2_balanced",
    version="0.1.0",
    description="Treatments of training imbalance for detectron2's two-stage detectors",
    license="Apache-2.0",
    python_requires=">=3.9",
    packages=find_packages(include=["d2_balanced", "d2_balanced.*"]),
    package_data={"d2_balanced.analysis.report": ["*.html"]},
    # detectron2 is left out on purpose: an existing install, compiled or not, is used as it is (README, "Install").
    install_requires=[
        "torch>=2.0", "torchvision", "fvcore", "iopath", "yacs", "omegaconf>=2.1", "hydra-core>=1.1", "cloudpickle",
        "numpy", "scipy", "Pillow>=9", "pycocotools", "faster-coco-eval", "jinja2", "matplotlib", "tabulate", "tensorboard",
        "termcolor", "tqdm", "packaging", "pyyaml",
    ],
    extras_require={"test": ["pytest", "pytest-xdist", "hypothesis"]},
)
