def calculate(expression):
    return str(eval(expression))
