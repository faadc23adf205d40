"""The page that scores on a phone: its ONNX program, its runtime and its files."""
