"""The app, a web page that scores on the phone: its ONNX program, runtime and files."""
