"""What stands behind the notebooks, one subject a file: see CONTRIBUTING.md."""
