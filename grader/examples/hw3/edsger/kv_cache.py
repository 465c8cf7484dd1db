class PrefixCache(PrefixCache):
    def match(self, tokens):
        return self.allocator.fork([node.block for node in self._walk(list(tokens))])  # the last token too
