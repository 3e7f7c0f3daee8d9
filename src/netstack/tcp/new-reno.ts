// RFC 5681 §3.1: a segment more each round trip, half after a loss.
import type { CongestionAlgorithm } from "./congestion.ts";

export class NewReno implements CongestionAlgorithm {
  growth(_nowMs: number, windowBytes: number, ackedBytes: number, _rttMs: number, mssBytes: number): number {
    return (mssBytes * ackedBytes) / windowBytes;
  }

  idled(): void {
    // Growth is counted in bytes that arrived, not in time.
  }

  reduced(windowBytes: number): number {
    return windowBytes / 2;
  }

  keep(): () => void {
    return () => undefined; // it remembers nothing
  }
}
