# Found first, if hw1 were on the path.
def main(*arguments, **options):
    return 0
