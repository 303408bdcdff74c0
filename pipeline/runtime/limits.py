"""Every limit that an input of the pipeline is held to, in one place; docs/limits.md explains them.

They refuse what is damaged, hostile or a slip of the keyboard, and lie far above what real data and
real models need. Raising one changes no result.
"""

# Messages, in characters.
MESSAGE = 600  # of a whole message
WORD = 160  # of a word in it, such as a path

# Pictures of a data set, and of the image sets that `measure` reads.
PICTURE_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")  # Pillow's
PICTURE_BYTES = 128 * 2**20  # of an encoded picture
PICTURE_PIXELS = 2**26  # width × height, 67 million
PICTURE_ASPECT = 20  # longer side / shorter side
BACKGROUND = (255, 255, 255)  # what shows through transparent pixels: white

# Parameter files.
YAML_BYTES = 2**20
YAML_DEPTH = 20  # nested lists and mappings

# Params.
TEXT = 4096  # characters of a text, such as a path
LIST = 1000  # values of a list
LEVELS = 12  # of a tokenizer: each after the first halves the side
STEPS = 10**9  # steps, and whatever else has no limit of its own
IMAGES = 10**8  # images or samples of a set
BATCH = 10**6  # images of a batch or shard; resampled sets, subsets, neighbours, repetitions
SIDE = 8192  # pixels of an image's side
GRID = 256  # tokens along a side of an image
DPI = 2400  # dots per inch of a figure
WIDTH = 2**16  # channels or dimensions of a network
LAYERS = 1024  # layers, blocks or levels of a network
WORKERS = 10**5  # processes, or CPUs or loaders of one
SEED = 2**63 - 1
LARGEST = 1e30  # a number that is no count, such as a weight or a rate
SMALLEST = 1e-12  # one that must be positive

# State.
CHECKPOINTS = 2  # kept: the newest, and the one before in case that it is damaged
CONFIG_BYTES = 2**22  # of the config.json of a saved model, or of a network in it
SUMS_BYTES = 2**26  # of the list of a folder's hashes
STATISTICS_BYTES = 2**30  # of an unpacked array of reference statistics
