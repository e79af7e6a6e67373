"""What a trained detector costs: time, memory, parameters, operations; beside plain detectron2 and an exported file."""
