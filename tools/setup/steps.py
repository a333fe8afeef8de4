"""One step of an installation: run a command, keep its output in a log, show that it lives."""
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

# What ninja prints for each file that it compiled.
COMPILED = re.compile(rb'\[(\d+)/(\d+)\] ')


# Descriptors of open files that the commands inherit.
KEPT_OPEN = []


class InstallError(Exception):
    """The environment cannot be made; the message says why."""


def run_program(main):
    """Call `main`; end with a message when it raises InstallError or is told to stop."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.default_int_handler)
    try:
        main()
    except InstallError as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit('interrupted: the next make begins the unfinished part again')


def say(line):
    print(line, flush=True)


def pip_command(python, command, *args):
    return [python, '-m', 'pip', '--disable-pip-version-check', '--no-input', command, *args]


def run_step(title, command, on_failure=None, **environment):
    """Run `command`; print `title` first, its progress meanwhile and its duration at the end.

    Args:
        title (str): What the step does, for a person.
        command (list[str]): The command line.
        on_failure (callable, optional): Called, instead of giving up, when the command fails.
        environment: Variables to set for the command.

    Raises:
        InstallError: If the command fails; the end of its output is printed before.
    """
    say(title)
    begin = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            # A user's own default of --user cannot work in a virtual environment.
            env=dict(os.environ, PIP_USER='0', **environment),
            # A session of its own, so that compilers end with pip; and the lock, so that whatever
            # outlives this program keeps the next one waiting.
            start_new_session=True, pass_fds=KEPT_OPEN)
        try:
            watch(process, log, begin)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        if process.returncode == 0:
            say(f'      done in {clock(time.monotonic() - begin)}')
        elif on_failure is not None:
            on_failure()
        else:
            say(last_lines(log, 40))
            raise InstallError(
                f'step "{title.strip()}" must succeed, got exit code {process.returncode} from '
                f'{" ".join(command[:6])} ... (its last lines are above)')


def watch(process, log, begin):
    """Print elapsed time and compiled files: in place on a terminal, else now and then."""
    terminal = sys.stdout.isatty()
    pause = 1 if terminal else 30
    while True:
        try:
            process.wait(pause)
            break
        except subprocess.TimeoutExpired:
            line = f'      {clock(time.monotonic() - begin)}{compiled(log)}'
            print(f'\r{line}' if terminal else line, end='' if terminal else '\n', flush=True)
    if terminal:
        print('\r\033[K', end='')


def compiled(log):
    """Return ', N of M files compiled' from the last line that ninja wrote, else ''."""
    # os.pread leaves the position alone at which the command goes on writing.
    size = os.fstat(log.fileno()).st_size
    found = COMPILED.findall(os.pread(log.fileno(), 100_000, max(0, size - 100_000)))
    return f', {int(found[-1][0])} of {int(found[-1][1])} files compiled' if found else ''


def last_lines(log, count):
    size = os.fstat(log.fileno()).st_size
    text = os.pread(log.fileno(), 20_000, max(0, size - 20_000)).decode(errors='replace')
    return '\n'.join(text.splitlines()[-count:])


def clock(seconds):
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d} min'
