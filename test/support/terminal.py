"""Runs a program in a terminal of its own: terminal.py COLUMNS ROWS PROGRAM ARGS...

Commands come as JSON, one a line: {"send": text}, {"resize": [columns, rows]}, {"signal": number}, and {"hidden": text}, which is sent
as soon as the terminal does not show any more what is typed. What the program prints goes to standard output; behind its end a line on
standard error says {"code": number, "echo": true or false}, the latter of the terminal as it was left.
"""
import fcntl, json, os, pty, select, signal, struct, sys, termios

columns, rows, program = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
master, slave = pty.openpty()


def resize(columns, rows):
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))


def shows():
    return bool(termios.tcgetattr(slave)[3] & termios.ECHO)


resize(columns, rows)
child = os.fork()
if child == 0:
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    os.execvp(program[0], program)

signal.set_wakeup_fd(os.open(os.devnull, os.O_WRONLY | os.O_NONBLOCK))
pending, hidden, ended = b'', [], None
inputs = [0, master]
while True:
    ready = select.select(inputs, [], [], 0.02)[0]
    if 0 in ready:
        data = os.read(0, 65536)
        if not data:
            inputs.remove(0)
        pending += data
        *lines, pending = pending.split(b'\n')
        for line in lines:
            for name, value in json.loads(line).items():
                if name == 'send':
                    os.write(master, value.encode())
                elif name == 'resize':
                    resize(*value)
                    os.kill(child, signal.SIGWINCH)
                elif name == 'signal':
                    os.kill(child, value)
                else:
                    hidden.append(value)
    if hidden and not shows():
        os.write(master, hidden.pop(0).encode())
    if master in ready:
        os.write(1, os.read(master, 65536))
    elif ended is not None:
        break
    if ended is None:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid == child:
            ended = os.waitstatus_to_exitcode(status)
sys.stderr.write(json.dumps({'code': ended, 'echo': shows()}) + '\n')
