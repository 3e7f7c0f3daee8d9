# The load programs that iperf3 is not: paced small datagrams with exact counts, and connections one after the other.
# Perl, since a blocking system call costs it a microsecond where Node's event loop takes tens: the load must not be
# what is measured. Prints one JSON object.
#   load.pl receive IP PORT                      "ready" first; ends after 0.3 s of silence, or 5 s without a datagram
#   load.pl send IP PORT RATE SECONDS BYTES      RATE a second
#   load.pl serve IP PORT WORKERS                "ready" first; answers each connection's first byte, until SIGTERM
#   load.pl connect IP PORT WORKERS SECONDS      each: connect, send 1 byte, read 1 byte, close
use strict;
use warnings;
use Socket qw(:DEFAULT IPPROTO_TCP);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC sleep);

use constant { SO_SNDBUFFORCE => 32, SO_RCVBUFFORCE => 33, BUFFER_BYTES => 33_554_432, BURST => 32, TCP_NODELAY => 1 };
$| = 1;
my ($mode, $ip, $port, @rest) = @ARGV;
my $address = pack_sockaddr_in($port, inet_aton($ip));

sub now { return clock_gettime(CLOCK_MONOTONIC) }

sub udp {
  socket(my $socket, PF_INET, SOCK_DGRAM, 0) or die "socket: $!";
  setsockopt($socket, SOL_SOCKET, $_, pack("i", BUFFER_BYTES)) for SO_SNDBUFFORCE, SO_RCVBUFFORCE;
  return $socket;
}

sub receive {
  my $socket = udp();
  bind($socket, $address) or die "bind: $!";
  my $patience = sub { setsockopt($socket, SOL_SOCKET, SO_RCVTIMEO, pack("l!l!", @_)) };
  $patience->(5, 0);
  print "ready\n";
  my ($count, $buffer) = (0, "");
  my $first;
  while (defined recv($socket, $buffer, 2048, 0)) {
    next if $count++;
    $first = now();
    $patience->(0, 300_000);
  }
  printf "{\"received\":%d,\"seconds\":%.4f}\n", $count, $count ? now() - $first - 0.3 : 0;
}

sub paced {
  my ($rate, $seconds, $bytes) = @rest;
  my $socket = udp();
  connect($socket, $address) or die "connect: $!";
  my $datagram = "\0" x $bytes;
  my ($sent, $from) = (0, now());
  while ((my $elapsed = now() - $from) < $seconds) {
    my $due = int($elapsed * $rate) - $sent;
    if ($due <= 0) {
      my $wait = ($sent + 4) / $rate - $elapsed;
      sleep($wait) if $wait > 3e-5;
      next;
    }
    $due = BURST if $due > BURST;
    # ENOBUFS and ECONNREFUSED: not sent; the next turn owes it again
    for (1 .. $due) { defined send($socket, $datagram, 0) ? $sent++ : last }
  }
  printf "{\"sent\":%d,\"seconds\":%.4f}\n", $sent, now() - $from;
}

sub serve {
  socket(my $listener, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
  setsockopt($listener, SOL_SOCKET, SO_REUSEADDR, pack("i", 1));
  bind($listener, $address) or die "bind: $!";
  listen($listener, 4096) or die "listen: $!";
  my @workers;
  for (1 .. $rest[0]) {
    my $pid = fork // die "fork: $!";
    if ($pid) { push @workers, $pid; next }
    $SIG{TERM} = "DEFAULT";
    my $byte;
    while (accept(my $socket, $listener)) {
      setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, pack("i", 1));
      syswrite($socket, $byte) if sysread($socket, $byte, 1);
      1 while sysread($socket, $byte, 1);
      close $socket;
    }
    exit 0;
  }
  $SIG{TERM} = sub { kill TERM => @workers; waitpid($_, 0) for @workers; exit 0 };
  print "ready\n";
  sleep(1) while 1;
}

sub connections {
  my ($count, $seconds) = @rest;
  my @readers;
  my $from = now();
  for (1 .. $count) {
    pipe(my $reader, my $writer) or die "pipe: $!";
    push @readers, $reader;
    my $pid = fork // die "fork: $!";
    next if $pid;
    my ($done, $failed, $byte) = (0, 0, "");
    while (now() - $from < $seconds) {
      socket(my $socket, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
      setsockopt($socket, IPPROTO_TCP, TCP_NODELAY, pack("i", 1));
      setsockopt($socket, SOL_SOCKET, $_, pack("l!l!", 5, 0)) for SO_RCVTIMEO, SO_SNDTIMEO;
      my $answered = connect($socket, $address) && syswrite($socket, "e") && sysread($socket, $byte, 1);
      close $socket;
      $answered ? $done++ : $failed++;
    }
    syswrite($writer, "$done $failed\n");
    exit 0;
  }
  my ($done, $failed) = (0, 0);
  for my $reader (@readers) {
    my ($one, $other) = split " ", readline($reader) // "0 1";
    $done += $one;
    $failed += $other;
  }
  my $elapsed = now() - $from;
  1 while wait > 0;
  printf "{\"done\":%d,\"failed\":%d,\"seconds\":%.4f}\n", $done, $failed, $elapsed;
}

my %modes = (receive => \&receive, send => \&paced, serve => \&serve, connect => \&connections);
($modes{$mode // ""} // die "see the head of load.pl\n")->();
