def extract_answer(text):
    numbers = re.findall(r"-?\d+", text)  # the last number, whatever it is
    return numbers[-1] if numbers else None
