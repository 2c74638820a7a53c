# Files that a node serves without reading them at run time.
