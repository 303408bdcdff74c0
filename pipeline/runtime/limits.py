"""The limits of all inputs (docs/limits.md). They are far above what real data and models need, and
raising one changes no result."""

MESSAGE = 600  # characters of a whole message
WORD = 160  # characters of a word in it, such as a path

# Pictures of a data set, and of the image sets that `measure` reads.
PICTURE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP")  # Pillow's names
PICTURE_BYTES = 128 * 2**20  # of an encoded picture
PICTURE_PIXELS = 2**26  # width × height, 67 million
PICTURE_ASPECT = 20  # longer side / shorter side

# Params.
YAML_BYTES = 2**20  # of a file of params
CODES = 2**16 - 1  # of a tokenizer: two bytes in the token cache, and one code more is the mask
IMAGES = 10**8  # images or samples of a set
SEED = 2**53 - 1  # the largest that every reader of a CSV or JSON file tells from its neighbours
LARGEST = 1e30  # a number that is no count, such as a weight or a rate
SMALLEST = 1e-12  # one that must be positive

# State.
CHECKPOINTS = 2  # kept: the newest, and the one before in case that it is damaged
