// What a connection needs of the TCP of its stack, and no more.
import type { Random } from "../../base/random.ts";
import type { Deadlines } from "../deadlines.ts";
import type { PacketOutput } from "../packet-output.ts";
import type { CongestionName } from "./congestion.ts";
import type { Connection } from "./connection.ts";
import type { ReceiveMemory } from "./receiver.ts";
import type { ChunkPool } from "./send-buffer.ts";

export type TcpCounter =
  | "TCP_BAD_CHECKSUM"
  | "TCP_BACKLOG_FULL"
  | "TCP_CONNECTIONS_FULL"
  | "TCP_CONNECTIONS_OF_REMOTE_FULL"
  | "TCP_RECEIVE_MEMORY_FULL"
  | "TCP_OUT_OF_ORDER_FULL"
  | "TCP_OLD_TIMESTAMP"
  | "TCP_WITHOUT_TIMESTAMP"
  | "TCP_CHALLENGE_ACKS"
  | "TCP_RESETS_SENT"
  | "TCP_RETRANSMISSIONS"
  | "TCP_BLACK_HOLES"
  | "TCP_NO_CONNECTION"
  | "TCP_ICMP_SOFT_ERRORS"
  | "TCP_TIME_WAIT_EVICTED";

export interface TcpHost {
  readonly output: PacketOutput;
  readonly deadlines: Deadlines;
  readonly chunks: ChunkPool;
  readonly receiveMemory: ReceiveMemory;
  readonly random: Random;
  readonly congestion: CongestionName;
  /** Of each connection's buffers: at first, and at most. */
  readonly sendBufferBytes: number;
  readonly sendBufferMaxBytes: number;
  readonly receiveBufferBytes: number;
  readonly receiveBufferMaxBytes: number;
  count(what: TcpCounter): void;
  /** True: `finishBurst` will be called before the turn ends, once for all segments of it. */
  putOff(connection: Connection): boolean;
  /** Its handshake has ended. */
  established(nowMs: number, connection: Connection): void;
  /** It is in TIME-WAIT. */
  waiting(connection: Connection): void;
  /** It is gone: out of every table. */
  forget(connection: Connection): void;
}
