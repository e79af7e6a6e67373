"""A trained detector as a file that other programs run: TorchScript or ONNX (docs/EXPORT.md)."""
