import os
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Puts ``configs`` and ``projects``, which lie beside the package in a checkout, into it (``utils/shipped.py``)."""

    def run(self):
        super().run()
        if getattr(self, "editable_mode", False):  # the checkout itself is used
            return
        here = os.path.dirname(os.path.abspath(__file__))
        for name in ("configs", "projects"):
            target = os.path.join(self.build_lib, "d2_balanced", name)
            shutil.rmtree(target, ignore_errors=True)  # of an older build
            shutil.copytree(os.path.join(here, name), target, ignore=shutil.ignore_patterns("__pycache__"))


setup(
    name="d2_balanced",
    version="0.1.0",
    description="Treatments of training imbalance for detectron2's two-stage detectors",
    license="Apache-2.0",
    python_requires=">=3.9",
    packages=find_packages(include=["d2_balanced", "d2_balanced.*"]),
    package_data={f"d2_balanced.{room}": ["*.html"] for room in ("utils", "analysis.report", "evaluation.errors")},
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["d2_balanced = d2_balanced.__main__:main"]},
    # detectron2 is left out on purpose: an existing install, compiled or not, is used as it is (README, "Install").
    install_requires=[
        "torch>=2.0", "torchvision", "fvcore", "iopath", "yacs", "omegaconf>=2.1", "hydra-core>=1.1", "cloudpickle",
        "numpy", "scipy", "Pillow>=9", "pycocotools", "faster-coco-eval", "jinja2", "matplotlib", "tabulate", "tensorboard",
        "termcolor", "tqdm", "packaging", "pyyaml",
    ],
    extras_require={
        "export": ["onnx>=1.14", "onnxruntime>=1.16"],
        "test": ["pytest", "pytest-xdist", "hypothesis", "optuna", "supervision", "av", "ensemble-boxes"],
        "errors": ["supervision", "tidecv"],
        "tune": ["optuna>=3"],
        "mlflow": ["mlflow-skinny", "sqlalchemy", "alembic"],  # the two for its local store
        "wandb": ["wandb"],
        "supervision": ["supervision"],
        "video": ["av"],
        "fusion": ["ensemble-boxes"],  # WeightedBoxesFusion
    },
)
